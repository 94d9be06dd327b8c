"""Between the network and LitServe: the key, clients that leave, how a stream begins."""

import asyncio
import hmac
from contextvars import ContextVar

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

PUBLIC = ("/docs", "/openapi.json")  # a browser cannot send the key; neither shows the model
TICKET = ContextVar("TICKET", default=0)  # the number of the request that this task answers


class KeyCheck:
    """Answers 401 without the key, before any of the body is read."""

    def __init__(self, app, key: str):
        self.app, self.key = app, key.encode()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "http" and scope["path"] not in PUBLIC:
            sent = Headers(scope=scope).get("x-api-key", "").encode("latin-1")
            if not hmac.compare_digest(sent, self.key):
                sentence = "X-API-Key: this header must hold the key of this server"
                return await JSONResponse({"detail": sentence}, 401)(scope, receive, send)
        await self.app(scope, receive, send)


class Departures:
    """Marks the requests whose clients have left, so that workers need not compute them.

    `gone` is an array in shared memory, a byte for each request; its places are used in turn.
    """

    def __init__(self, app, gone):
        self.app, self.gone, self.count = app, gone, 0

    async def __call__(self, scope, receive, send) -> None:
        self.count = number = (self.count + 1) % len(self.gone)
        self.gone[number] = 0
        TICKET.set(number)
        watches = []

        async def watched():
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone[number] = 1
            elif message["type"] == "http.request" and not message.get("more_body"):
                # LitServe now waits for the worker, and not for news of the client.
                watches.append(asyncio.create_task(watched()))
            return message

        try:
            await self.app(scope, watched, send)
        finally:
            for watch in watches:
                watch.cancel()


class StreamStart:
    """Sends the status of the stream at `path` with its first line, and the content type.

    LitServe sends status 200 at once, also where the request then waits for too long.
    """

    def __init__(self, app, path: str):
        self.app, self.path = app, path

    async def __call__(self, scope, receive, send) -> None:
        start = None

        async def delayed(message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and message["status"] == 200:
                message["headers"].append((b"content-type", b"application/x-ndjson"))
                start = message
                return
            if start is not None:
                if not message["body"]:  # the end, and no line before it
                    sentence = "Request timed out"
                    return await JSONResponse({"detail": sentence}, 504)(scope, receive, send)
                await send(start)
                start = None
            await send(message)

        await self.app(scope, receive, delayed if scope.get("path") == self.path else send)
