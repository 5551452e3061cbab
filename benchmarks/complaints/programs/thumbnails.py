"""Photographs are made small in threads, and the small ones are kept as JPEG.

https://github.com/python-pillow/Pillow/issues/5180, https://github.com/python-pillow/Pillow/issues/7935
"""

import io
from concurrent.futures import ThreadPoolExecutor

from PIL import Image


def thumbnail(number: int) -> bytes:
    wide = 2400 + 400 * (number % 5)
    noise = Image.effect_noise((300, 200), 60.0).convert("RGB")
    photograph = noise.resize((wide, wide * 2 // 3), Image.Resampling.BILINEAR)
    turned = photograph.transpose(Image.Transpose.ROTATE_90)
    turned.thumbnail((256, 256))
    file = io.BytesIO()
    turned.save(file, "JPEG")
    return file.getvalue()


def work() -> object:
    with ThreadPoolExecutor(4) as pool:
        return [len(image) > 1000 for image in pool.map(thumbnail, range(30))]
