"""Requests to Prefect's API that are made again while SQLite is locked by another one, as Prefect's own client does."""

import time

import httpx

PATIENCE_S = 120.0


class AskingAgain(httpx.HTTPTransport):
    """Makes a request again that was answered with 503, which is what Prefect says of a locked database."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = super().handle_request(request)
            if answer.status_code != 503 or time.monotonic() > deadline:
                return answer
            answer.close()
            time.sleep(0.5)


PREFECT_CLIENT = httpx.Client(transport=AskingAgain(), timeout=60)
