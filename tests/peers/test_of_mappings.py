"""CPython's own tests of mappings, with VolatileCache in their place."""

from __future__ import annotations

from typing import Any, ClassVar

from test import mapping_tests

import vrange


class TestMapping(mapping_tests.BasicTestMappingProtocol):  # type: ignore[misc]
    type2test: ClassVar[Any] = vrange.VolatileCache
