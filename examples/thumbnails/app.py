"""A web service that serves thumbnails of photographs out of two volatile caches of all workers.

`uvicorn examples.thumbnails.app:app`, or with four workers
`gunicorn --worker-class asgi --workers 4 examples.thumbnails.app:app`; in both cases, a scrape of
/metrics reports the whole service. The photographs come from scikit-image.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import prometheus_client
from PIL import Image
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import vrange
import vrange.metrics
from examples.thumbnails.photographs import PHOTOGRAPHS, SIZES

GRAIN_SIDE = 512

# Film grain that is laid over every thumbnail. It is computed where it is touched, so it needs no
# memory as long as nothing touches it.
GRAIN: vrange.VolatileArray = vrange.VolatileArray(
    (GRAIN_SIDE, GRAIN_SIDE),
    "u1",
    fill=vrange.fills.pattern(bytes((i * 167) % 13 for i in range(251))),
    name="grain",
)


@vrange.cached(name="photographs", shared=True, hot_bytes="2MiB")
def photograph(name: str) -> np.ndarray[Any, Any]:
    """Return a decoded photograph: slow to make, large, and used for every size."""
    with Image.open(PHOTOGRAPHS[name]) as image:
        return np.asarray(image.convert("RGB"))


@vrange.cached(name="thumbnails", shared=True, hot_bytes="256KiB")
def thumbnail(name: str, size: int) -> bytes:
    """Return a JPEG whose longer side is `size`."""
    image = Image.fromarray(photograph(name))
    image.thumbnail((size, size))
    pixels = np.asarray(image)
    grain = np.asarray(GRAIN)[: pixels.shape[0], : pixels.shape[1], None]
    out = io.BytesIO()
    Image.fromarray(pixels // 16 * 15 + grain).save(out, "JPEG")
    return out.getvalue()


def get_thumbnail(request: Request) -> Response:
    """Serve a thumbnail, if there is such a photograph and size."""
    name, size = request.path_params["name"], request.path_params["size"]
    if name not in PHOTOGRAPHS or size not in SIZES:
        raise HTTPException(404, f"photographs are {', '.join(PHOTOGRAPHS)}; sizes 16 to 256")
    return Response(thumbnail(name, size), media_type="image/jpeg")


def get_info(request: Request) -> Response:
    """Serve this worker's own cache figures, to compare with what Prometheus stored."""
    caches: dict[str, vrange.CachedFunction[..., Any]] = {
        "photographs": photograph,
        "thumbnails": thumbnail,
    }
    told: dict[str, Any] = {name: cache.cache_info().__dict__ for name, cache in caches.items()}
    return JSONResponse({"caches": told, "refaults": GRAIN.refaults})


def post_discard(request: Request) -> Response:
    """Make the kernel reclaim everything now, as it does by itself when memory runs short."""
    photograph.cache.discard()
    thumbnail.cache.discard()
    GRAIN.discard()
    return PlainTextResponse("discarded\n")


def get_metrics(request: Request) -> Response:
    """Serve any format that the scraper asks for; in a thread, so that no request waits for it."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(prometheus_client.REGISTRY), headers={"content-type": content_type})


vrange.metrics.register(processes="group")
app = Starlette(
    routes=[
        Route("/thumbnail/{name}/{size:int}", get_thumbnail),
        Route("/info", get_info),
        Route("/discard", post_discard, methods=["POST"]),
        Route("/metrics", get_metrics),
    ]
)
