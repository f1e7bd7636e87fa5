"""A site for each test, with its gateway and without."""

from collections.abc import AsyncIterator

import pytest

from tests.gateway.site import Site, made


@pytest.fixture
async def still() -> AsyncIterator[Site]:
    """A site whose gateway does not run yet."""
    async with made() as site:
        yield site


@pytest.fixture
async def site(still: Site) -> AsyncIterator[Site]:
    """A site whose gateway runs."""
    async with still.running():
        yield still
