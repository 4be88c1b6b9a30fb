"""The page itself: who asks is known by a cookie, what is submitted by a form that this server signed for that labeler.

No text of a model or a person is ever markup: templates escape everything, and the content security policy allows no script
but ours. Where a label lies on disk before the browser is told to go on, a server killed at any moment loses none.
"""

import hmac
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from flows.label.answers import REASONS, Fields, fields_of, label_of, letter
from flows.label.desk import Desk, shown_order
from flows.label.tokens import Labelers
from tasks.engine.errors import ArtifactError, DataError, PlumblineError
from tasks.records.labels import Item, LabelBatch, progress

HERE = Path(__file__).parent
COOKIE = "plumbline_labeler"
COOKIE_SECONDS = 90 * 24 * 3600
BODY_BYTES = 100_000
FLAG_KEYS = "abcdefghijklmnopqr"
"""A key for each of the first flags; the letters after them have other meanings."""
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
STATIC = {"label.css": "text/css", "label.js": "text/javascript"}
TEMPLATES = Environment(
    loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
NO_TOKEN = (
    "This page opens with a personal link. Ask whoever runs it for yours: python -m flows.label add NAME prints one, and "
    "--renew replaces one that was lost."
)


def create_app(
    home: Path,
    hosts: Sequence[str] = (),
    clock: Callable[[], float] = time.time,
    stored: Callable[[Path], None] = lambda batch: None,
) -> FastAPI:
    """The page for the batches of one home folder.

    Args:
        home: the folder with ``labels/``.
        hosts: names under which the page may be asked for, beside those of this machine.
        clock: seconds since 1970.
        stored: told the folder of a batch after each label that was stored.
    """
    app = FastAPI(title="Plumbline labelling", docs_url=None, redoc_url=None, openapi_url=None)
    page = LabelPage(Labelers(home), Desk(home), clock, stored)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", *hosts])

    @app.middleware("http")
    async def with_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> HTMLResponse:
        return message(error.status_code, "This did not work", str(error.detail))

    @app.exception_handler(RequestValidationError)
    def unreadable(request: Request, error: RequestValidationError) -> HTMLResponse:
        return message(404, "This did not work", "There is no such page.")

    @app.exception_handler(PlumblineError)
    def wrong(request: Request, error: PlumblineError) -> HTMLResponse:
        return message(507 if isinstance(error, ArtifactError) else 500, "This did not work", str(error))

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC:
            raise HTTPException(404, "There is no such page.")
        return Response((HERE / name).read_bytes(), media_type=STATIC[name])

    @app.get("/enter")
    def enter(request: Request, token: str = "") -> Response:
        if page.labelers.find(token) is None:
            raise HTTPException(401, f"Nobody has this token. {NO_TOKEN}")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(cookie_of(request), token, max_age=COOKIE_SECONDS, httponly=True, samesite="lax")
        return answer

    @app.get("/")
    def start(request: Request) -> Response:
        return page.overview(page.labeler(request))

    @app.get("/batch/{batch_id}")
    def next_item(request: Request, batch_id: str, after: int | None = None) -> Response:
        return page.next_item(page.labeler(request), batch_id, after)

    @app.get("/batch/{batch_id}/{number}")
    def item(request: Request, batch_id: str, number: int, after: int | None = None) -> Response:
        return page.item(page.labeler(request), batch_id, number, after)

    @app.post("/batch/{batch_id}/{number}")
    async def submit(request: Request, batch_id: str, number: int) -> Response:
        fields = await _fields(request)
        return await run_in_threadpool(lambda: page.submit(page.labeler(request), batch_id, number, fields))

    return app


@dataclass(frozen=True)
class LabelPage:
    """What each address answers."""

    labelers: Labelers
    desk: Desk
    clock: Callable[[], float]
    stored: Callable[[Path], None]

    def labeler(self, request: Request) -> str:
        """Who asks."""
        name = self.labelers.find(request.cookies.get(cookie_of(request), ""))
        if name is None:
            raise HTTPException(401, NO_TOKEN)
        return name

    def overview(self, labeler: str) -> Response:
        """Every batch and how far it is; where there is one, that one."""
        ids = self.desk.batches()
        if len(ids) == 1:
            return RedirectResponse(f"/batch/{ids[0]}", 303)
        rows = [(batch_id, *self._account_or_damage(batch_id, labeler)) for batch_id in ids]
        return _html("overview.html.jinja", 200, title="Batches", labeler=labeler, rows=rows)

    def _account_or_damage(self, batch_id: str, labeler: str) -> tuple[dict[str, Any], str]:
        """How far a batch is; one that cannot be read does not close the others."""
        try:
            return self._account(self.desk.batch(batch_id), labeler), ""
        except DataError as error:
            return {}, str(error)

    def next_item(self, labeler: str, batch_id: str, after: int | None) -> Response:
        """Go to the next item, or tell that there is none."""
        batch = self._batch(batch_id)
        item = self.desk.next_item(batch, labeler)
        if item is not None:
            suffix = "" if after is None else f"?after={after}"
            return RedirectResponse(f"/batch/{batch_id}/{_number(batch, item)}{suffix}", 303)
        account = self._account(batch, labeler)
        names = {"title": "Nothing left", "labeler": labeler, "batch": batch.batch, "account": account}
        return _html("done.html.jinja", 200, **names, after=after)

    def item(self, labeler: str, batch_id: str, number: int, after: int | None) -> Response:
        """The form of one item, filled in where it was answered before."""
        batch, item = self._numbered(batch_id, number)
        if not self.desk.may_answer(batch, labeler, item):
            raise HTTPException(409, f"Item {number} is with another labeler. Open /batch/{batch_id} for the next one.")
        mine = (label for label in self.desk.labels(batch) if (label.labeler, label.item_id) == (labeler, item.item_id))
        given = next((fields_of(label, shown_order(labeler, item)) for label in mine), {})
        return self._form(labeler, batch, item, given, 200, after=after)

    def submit(self, labeler: str, batch_id: str, number: int, fields: Fields) -> Response:
        """Keep a label, then go on; where that is impossible, the form as it was submitted, with the reason.

        A form that this labeler was given is taken even if the item has been handed on meanwhile: both labels count.
        """
        batch, item = self._numbered(batch_id, number)
        shown_at = self._signed(labeler, batch, item, "".join(fields.get("form", ())))
        now = self.clock()
        try:
            seconds = _seconds("".join(fields.get("seconds", ())), now - shown_at)
            order = shown_order(labeler, item)
            label = label_of(fields, batch.batch.form, item, order, labeler, seconds, now)
            self.desk.put(batch, label)
        except DataError as error:
            return self._form(labeler, batch, item, fields, 422, problem=f"Not stored: {error}.")
        except ArtifactError as error:
            return self._form(labeler, batch, item, fields, 507, problem=f"Not stored: {error}. Submit again then.")
        self.stored(batch.folder)
        return RedirectResponse(f"/batch/{batch_id}?after={number}", 303)

    def _form(
        self,
        labeler: str,
        batch: LabelBatch,
        item: Item,
        given: Fields,
        status: int,
        *,
        problem: str = "",
        after: int | None = None,
    ) -> Response:
        shown_at = f"{self.clock():.3f}"
        return _html(
            "item.html.jinja",
            status,
            title=f"Item of {batch.batch.id}",
            labeler=labeler,
            batch=batch.batch,
            number=_number(batch, item),
            text=item.text,
            # Of an item, only what a labeler may see is handed to the page.
            outputs=[(letter(at), item.responses[which]) for at, which in enumerate(shown_order(labeler, item))],
            flags=[(flag, FLAG_KEYS[at : at + 1]) for at, flag in enumerate(batch.batch.form.flags)],
            reasons=REASONS,
            given=given,
            form=f"{shown_at}.{self._signature(labeler, batch, item, shown_at)}",
            account=self._account(batch, labeler),
            problem=problem,
            after=after,
        )

    def _batch(self, batch_id: str) -> LabelBatch:
        try:
            return self.desk.batch(batch_id)
        except DataError as error:
            if batch_id in self.desk.batches():
                raise  # there, but damaged
            raise HTTPException(404, f"{error}.") from None

    def _numbered(self, batch_id: str, number: int) -> tuple[LabelBatch, Item]:
        batch = self._batch(batch_id)
        items = list(batch.items.values())
        if not 1 <= number <= len(items):
            raise HTTPException(404, f"Batch {batch_id} has no item {number}.")
        return batch, items[number - 1]

    def _account(self, batch: LabelBatch, labeler: str) -> dict[str, Any]:
        labels = self.desk.labels(batch)
        return {
            "mine": sum(label.labeler == labeler for label in labels),
            "left": self.desk.left(batch, labeler, labels),
            "all": progress(batch, labels, self.labelers.names()),
        }

    def _signature(self, labeler: str, batch: LabelBatch, item: Item, shown_at: str) -> str:
        return self.labelers.sign(labeler, f"{batch.batch.id}/{item.item_id}/{shown_at}")

    def _signed(self, labeler: str, batch: LabelBatch, item: Item, form: str) -> float:
        shown_at, _, signature = form.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(labeler, batch, item, shown_at).encode()):
            raise HTTPException(403, "This form was not made for you by this page. Open the item again.")
        return float(shown_at)


def cookie_of(request: Request) -> str:
    """Browsers keep one set of cookies for all ports of a host; pages of several home folders have each their own."""
    return f"{COOKIE}_{request.url.port or ''}"


def message(status: int, title: str, text: str) -> HTMLResponse:
    """A page with one sentence."""
    return _html("message.html.jinja", status, title=title, text=text, labeler="")


def _html(template: str, status: int, **names: Any) -> HTMLResponse:
    return HTMLResponse(TEMPLATES.get_template(template).render(**names), status)


def _number(batch: LabelBatch, item: Item) -> int:
    return list(batch.items).index(item.item_id) + 1


def _seconds(counted: str, elapsed: float) -> float:
    """What the browser counted while the item was visible, where it counted; never more than has passed."""
    elapsed = max(0.0, elapsed)
    try:
        seconds = float(counted)
    except ValueError:
        seconds = math.nan
    return round(seconds if 0 <= seconds <= elapsed else elapsed, 2)


async def _fields(request: Request) -> Mapping[str, Sequence[str]]:
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "Expected the page's own form.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES:
            raise HTTPException(413, f"The form is larger than {BODY_BYTES} bytes.")
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=2000)
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None
