"""Every route an application answers on, whether its document names it or not."""

from collections.abc import Iterable, Iterator
from typing import Any

from starlette.routing import Route, WebSocketRoute


def every_route(routes: Iterable[Any]) -> Iterator[Route | WebSocketRoute]:
    """The routes, those of included routers too. Raises TypeError for what is neither: a mount, say."""
    for route in routes:
        if hasattr(route, "original_router"):  # FastAPI includes routers as they are, without copying routes
            yield from every_route(route.original_router.routes)
        elif isinstance(route, (Route, WebSocketRoute)):
            yield route
        else:
            raise TypeError(f"{route!r} is a kind of route that no test knows")
