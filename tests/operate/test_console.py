"""The console in a real browser: what it shows of a stack, and of what goes wrong there; what strangers say stays text.

`--screenshots` has it make the pictures of the README as well, from a minute of traffic.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import secrets
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage

import aiosmtplib
import httpx
import pytest
from axe_playwright_python.async_playwright import Axe
from contract_runtime.http_client import ApiError
from contracts.bff.v1 import models
from contracts.bff.v1.client import BackendClient
from devstack.layout import ROOT
from mesh.topology import CONSOLE, MAILBOX
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from playwright.async_api import Browser, ConsoleMessage, Page, expect

from conftest import People, Platform, new_key, order_of

pytestmark = pytest.mark.browser

# A busy machine draws slowly; what is not there at all is not there after this either.
expect.set_options(timeout=20_000)

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
# Of the page's own size, and nothing beside it.
_OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@dataclass
class Console:
    """The page, and everything that went wrong on it."""

    page: Page
    url: str
    troubles: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    async def open(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))
        await self.page.goto(self.url)
        await expect(self.page.locator("#health")).to_have_attribute("data-state", "good")

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(message.text)


async def opened(browser: Browser, stack: Platform, **options: object) -> Console:
    page = await browser.new_page(**({"viewport": LAPTOP} | options))  # type: ignore[arg-type]
    console = Console(page, stack.status["endpoints"][CONSOLE])
    await console.open()
    return console


async def test_it_shows_every_process_and_asks_nobody_else(browser: Browser, stack: Platform) -> None:
    console = await opened(browser, stack)
    page = console.page
    shown = {"clients", *(process["name"] for process in stack.status["processes"])}
    assert set(await page.locator(".node").evaluate_all("nodes => nodes.map(node => node.dataset.name)")) == shown
    for name in shown - {"clients"}:
        await expect(page.locator(f".node[data-name='{name}']")).to_have_attribute("data-state", "good")
    # Whoever calls somebody is drawn as an arrow, and is a row of the table.
    for caller, callee in (("clients", "edge"), ("edge", "bff"), ("bff", "order"), ("order", "postgres")):
        await expect(page.locator(f".arrow[data-key='{caller} {callee}']")).to_have_attribute("d", re.compile("^M"))
        await expect(page.locator(f"#call-rows tr[data-key='{caller} {callee}']")).to_be_attached()
    await expect(page.get_by_role("link", name="API reference")).to_have_attribute("href", f"{stack.url}/docs")
    ops = stack.status["endpoints"]["order_ops"]
    await expect(page.get_by_role("link", name="Metrics of order")).to_have_attribute("href", f"{ops}/metrics")
    password = page.locator("#accounts li", has_text="customer").locator(".password")
    assert stack.account("customer").password not in await page.content()
    await page.get_by_role("button", name="Show the password of customer").click()
    await expect(password).to_have_text(stack.account("customer").password)
    await page.goto(f"{console.url}/docs/runbooks/errors.md")
    await expect(page.locator("main h1")).not_to_be_empty()
    assert [other for other in console.requested if not other.startswith(console.url)] == []
    assert console.troubles == []


@pytest.mark.parametrize(("scheme", "size"), [("light", LAPTOP), ("dark", PHONE)])
async def test_everybody_can_read_it_in_light_and_dark_on_a_laptop_and_a_phone(
    browser: Browser, stack: Platform, people: People, scheme: str, size: dict[str, int]
) -> None:
    await BackendClient(people.http).list_products(limit=1)
    await people.http.get("/v1/products?limit=2", headers=stack.traced)
    console = await opened(browser, stack, color_scheme=scheme, viewport=size, reduced_motion="reduce", bypass_csp=True)
    page = console.page
    for details in await page.locator("details").all():
        await details.evaluate("details => { details.open = true; }")
    for section in ("traces", "logs", "inside", "topology"):
        await page.locator(f"#{section}").scroll_into_view_if_needed()
    await expect(page.locator("#trace-list li").first).to_be_attached()
    await page.locator("#logs").scroll_into_view_if_needed()
    await expect(page.locator("#log-lines li").first).to_be_attached()
    await expect(page.locator("#operation-rows tr").first).to_be_attached()
    assert await page.evaluate(_OVERFLOW) == 0
    moving = "document.getAnimations().filter(one => one.playState === 'running').length"
    assert await page.evaluate(moving) == 0
    found = await Axe().run(page)
    assert [(v["id"], [node["target"] for node in v["nodes"]][:3]) for v in found.response["violations"]] == []
    luminance = """getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).slice(0, 3)
                   .reduce((sum, part) => sum + Number(part), 0) / 765"""
    assert (await page.evaluate(luminance) > 0.5) == (scheme == "light")


async def test_mails_are_read_as_text_and_shown_as_html_that_runs_nothing(browser: Browser, stack: Platform) -> None:
    subject = f"Hello {secrets.token_hex(6)}"
    message = EmailMessage()
    message["Subject"], message["Message-ID"] = subject, f"<{secrets.token_hex(8)}@x.example>"
    message.set_content(f"As text {HOSTILE}")
    message.add_alternative(f"<p>As markup</p>{HOSTILE}<script>top.document.title='taken'</script>", subtype="html")
    port = stack.layout.port(MAILBOX)
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, local_hostname="localhost") as client:
        await client.sendmail("shop@backend.example", ["ada@example.com"], message.as_bytes())
    console = await opened(browser, stack)
    page = console.page
    await page.locator("#mails").scroll_into_view_if_needed()
    await page.locator("#mail-list button", has_text=subject).click()
    await expect(page.locator("pre.mail-body")).to_have_text(f"As text {HOSTILE}\n")
    await page.locator("#mail-forms").get_by_text("HTML").click()
    await expect(page.frame_locator("iframe.mail-body").get_by_text("As markup")).to_be_visible()
    assert "taken" not in await page.title()
    assert [other for other in console.requested if not other.startswith(console.url)] == []


def hostile_spans() -> bytes:
    """A trace that failed, whose every text is markup."""
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = HOSTILE
    now, trace_id = time.time_ns(), secrets.token_bytes(16)
    for number in range(2):
        span = resource.scope_spans.add().spans.add(
            trace_id=trace_id, span_id=bytes([number + 1] * 8), parent_span_id=bytes([1] * 8) if number else b"",
            name=HOSTILE, kind=Span.SPAN_KIND_SERVER, start_time_unix_nano=now, end_time_unix_nano=now + 10**9,
            status=Status(code=Status.STATUS_CODE_ERROR),
        )  # fmt: skip
        span.attributes.add(key=HOSTILE).value.string_value = HOSTILE
        span.attributes.add(key="error.type").value.string_value = HOSTILE
    return message.SerializeToString()


async def failed_order(people: People) -> str:
    """The id of a request that failed in the database."""
    client, _ = await people.newcomer()
    me, product = (await client.get_me()).data, await people.product()
    database, broken = await people.platform.database("orderdb"), f"broken_{secrets.token_hex(4)}"
    await database.execute(
        f"CREATE FUNCTION {broken}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$"
    )
    await database.execute(
        f"CREATE TRIGGER {broken} BEFORE INSERT ON orders FOR EACH ROW WHEN (NEW.user_id = '{me.id}') "
        f"EXECUTE FUNCTION {broken}()"
    )
    try:
        # Without the check that every answer is one of the contract: a database that is broken is in none.
        async with httpx.AsyncClient(base_url=people.platform.url) as bare:
            client.http = bare
            with pytest.raises(ApiError) as caught:
                await client.create_order(order_of((product, 1)), idempotency_key=new_key())
    finally:
        await database.execute(f"DROP TRIGGER {broken} ON orders; DROP FUNCTION {broken}()")
        await database.close()
    assert caught.value.problem is not None
    return str(caught.value.problem.request_id)


async def test_a_failed_request_is_first_among_the_traces_span_by_span_and_what_strangers_say_is_text(
    browser: Browser, stack: Platform, people: People
) -> None:
    console = await opened(browser, stack)
    page = console.page
    request_id = await failed_order(people)
    await page.locator("#traces").scroll_into_view_if_needed()
    first = page.locator("#trace-list li").first
    await expect(first).to_contain_text("failed")
    await page.get_by_label("Request or trace id").fill(request_id)
    await page.get_by_role("button", name="Find").click()
    waterfall = page.locator("#waterfall")
    await expect(waterfall).to_contain_text(request_id)
    statement = waterfall.locator("tr[data-state='bad']", has_text="InsertOrder")
    await expect(statement).to_contain_text("P0001")
    await statement.get_by_role("button").press("Enter")
    await expect(waterfall.locator("tr.facts:visible")).to_contain_text("INSERT INTO orders")
    # Its lines, in all processes, with the stack of what failed.
    await waterfall.get_by_role("button", name="Its log lines").click()
    lines = page.locator("#log-lines li")
    await expect(lines.filter(has_text="RaiseError").first).to_be_visible()
    assert {"bff", "order"} <= set(await lines.locator(".process").all_inner_texts())

    kind = {"content-type": "application/x-protobuf"}
    async with httpx.AsyncClient(base_url=console.url) as sender:
        assert (await sender.post("/v1/traces", content=hostile_spans(), headers=kind)).status_code == 200
    line = {"level": "error", "event": HOSTILE, HOSTILE: HOSTILE, "request_id": HOSTILE, "exception": HOSTILE}
    with (stack.layout.logs / "order.log").open("a", encoding="utf-8") as log:
        log.write(f"{json.dumps(line)}\n\0\x1b[2J\u202e{HOSTILE}\n" + "x" * 300_000 + "\n")
    await page.get_by_role("group", name="Which traces").get_by_text("Failed").click()
    await page.locator("#trace-list button", has_text=HOSTILE).click()
    await expect(waterfall.locator("h3")).to_have_text(HOSTILE)
    await waterfall.locator("tbody th button").first.click()
    await expect(waterfall.locator("tr.facts:visible dd").first).to_have_text(HOSTILE)
    await page.locator("#log-request").fill("")
    await page.locator("#log-contains").fill("onerror")
    await expect(lines).to_have_count(2)
    await expect(lines.locator(".text").first).to_have_text(HOSTILE)
    await expect(lines.locator(".text").last).to_have_text(rf"\x00\x1b[2J\u202e{HOSTILE}")
    assert await page.locator("main img").count() == 0
    assert await page.title() == "Backend console"
    assert console.troubles == []


async def test_log_lines_are_filtered_paused_and_go_on(browser: Browser, stack: Platform, people: People) -> None:
    console = await opened(browser, stack)
    page = console.page
    mark = f"mark-{secrets.token_hex(6)}"
    lines = page.locator("#log-lines li")
    await page.locator("#logs").scroll_into_view_if_needed()
    await expect(lines.first).to_be_attached()
    await page.locator("#log-contains").fill(mark)
    await expect(page.locator("#log-state")).to_contain_text("No line is like this")
    answer = await people.http.get(f"/v1/products/{mark}")
    await expect(lines).not_to_have_count(0)
    request_id = answer.headers["x-request-id"]
    await page.locator("#log-contains").fill("")
    await page.locator("#log-request").fill(request_id)
    await page.locator("#log-process").select_option("edge")
    await expect(lines).to_have_count(1)
    await expect(lines.first).to_contain_text(f"GET /v1/products/{mark}")
    await page.locator("#log-level").select_option("error")
    await expect(lines).to_have_count(0)
    await page.locator("#log-level").select_option("debug")
    await page.locator("#log-request").fill("")
    await expect(lines).not_to_have_count(0)
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator("#log-state")).to_contain_text("paused")
    await people.http.get(f"/v1/products/{mark}-2")
    await asyncio.sleep(2)
    await expect(lines.filter(has_text=f"{mark}-2")).to_have_count(0)
    await page.get_by_role("button", name="Go on").click()
    await expect(lines.filter(has_text=f"{mark}-2")).to_have_count(1)
    assert console.troubles == []


async def test_all_of_it_is_reached_by_keyboard(browser: Browser, stack: Platform, people: People) -> None:
    await people.http.get("/v1/products?limit=1")
    console = await opened(browser, stack)
    page, keyboard = console.page, console.page.keyboard
    await keyboard.press("Tab")
    await expect(page.locator(":focus")).to_have_text("Skip to the content")
    await keyboard.press("Enter")
    await expect(page.locator("#main")).to_be_focused()
    await expect(page.locator("#operation-rows tr").first).to_be_attached()
    await page.evaluate(
        """() => { window.reached = [];
                  document.addEventListener("focusin", ({target}) => reached.push(target.closest("[id]").id)); }"""
    )
    for _ in range(8):
        for _ in range(12):
            await keyboard.press("Tab")
        reached: list[str] = await page.evaluate("window.reached")
        if "log-lines" in reached:
            break
    for place in ("tiles", "links", "examples", "accounts", "throughput", "latency", "operation-rows", "trace-id"):
        assert place in reached, reached
    # Rows are made anew every two seconds; the focus stays, and what is chosen is charted.
    operation = page.locator("#operation-rows button").first
    await operation.focus()
    await keyboard.press("Enter")
    await expect(page.locator("#charted")).to_have_text(await operation.inner_text())
    await asyncio.sleep(2.5)
    await expect(operation).to_be_focused()
    await expect(operation).to_have_attribute("aria-pressed", "true")
    chart = page.locator("#throughput svg")
    await chart.focus()
    await keyboard.press("ArrowLeft")
    await expect(chart.locator("desc")).to_contain_text("At ")
    await page.locator("#kinds input").first.focus()
    await keyboard.press("ArrowRight")
    await expect(page.locator("#operation-rows tr[data-key^='rpc']").first).to_be_attached()
    assert console.troubles == []


async def test_what_is_killed_or_hangs_is_seen_and_so_is_that_it_is_back(browser: Browser, stack: Platform) -> None:
    console = await opened(browser, stack)
    page = console.page
    limiter = page.locator(".node[data-name='limiter']")

    async def kill() -> None:
        # Once, it may be back before the page has asked.
        while True:
            # While it is away it has no number.
            with suppress(ProcessLookupError, TypeError):
                os.kill(await asyncio.to_thread(stack.pid, "limiter"), signal.SIGKILL)
            await asyncio.sleep(0.1)

    killing = asyncio.create_task(kill())
    await expect(limiter).to_have_attribute("data-state", "bad")
    await expect(page.locator("#health")).to_contain_text("limiter")
    await expect(page).to_have_title("● 1 not ready · Backend console")
    killing.cancel()
    await expect(limiter).to_have_attribute("data-state", "good", timeout=40_000)
    await expect(limiter).to_contain_text("restarted")
    await expect(page.locator("#health")).to_have_attribute("data-state", "good")

    # The console itself cannot be reached: what was seen stays, and is said to be old.
    await page.context.set_offline(True)
    await expect(page.get_by_role("alert")).to_contain_text("does not answer")
    await page.context.set_offline(False)
    await expect(page.get_by_role("alert")).to_be_hidden()
    await expect(page.locator("#health")).to_have_attribute("data-state", "good")


async def _traffic(people: People, seconds: float) -> None:
    """Some of all that happens to a shop, more of it and less by turns."""
    chance, until = random.Random(11), time.monotonic() + seconds
    clients = [(await people.newcomer())[0] for _ in range(3)]
    products = (await clients[0].list_products(limit=50)).data.items
    for number in range(10**6):
        if time.monotonic() > until:
            break
        client = chance.choice(clients)
        with suppress(ApiError):
            match number % 9:
                case 0 | 1 | 2 | 3:
                    await client.list_products(q=chance.choice(("brass", "oak", "linen")), limit=10)
                case 4 | 5:
                    await client.get_product(chance.choice(products).id)
                case 6:
                    await client.get_my_overview()
                case 7:
                    line = models.OrderLine(product_id=chance.choice(products).id, quantity=1)
                    order = models.CreateOrderRequest(items=[line])
                    placed = (await client.create_order(order, idempotency_key=new_key())).data
                    payment = models.PaymentRequest(payment_token="tok_approved")
                    await client.pay_order(placed.id, payment, idempotency_key=new_key())
                case _:
                    await client.get_order(chance.choice(products).id)
        await asyncio.sleep(chance.uniform(0, 0.06) * (2 + (number // 150) % 3))


async def test_the_pictures_of_the_documents(
    browser: Browser, stack: Platform, people: People, request: pytest.FixtureRequest
) -> None:
    """Made with `--screenshots`; without, that they are there, small, and shown."""
    pictures = ROOT / "docs" / "images"
    shown = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/observability.md"))
    shots = [
        (name, scheme, size) for name, size in (("laptop", LAPTOP), ("phone", PHONE)) for scheme in ("light", "dark")
    ]
    if request.config.getoption("--screenshots"):
        await _traffic(people, 60)
        for name, scheme, size in shots:
            console = await opened(browser, stack, color_scheme=scheme, viewport=size)
            await asyncio.sleep(4)
            await console.page.screenshot(path=pictures / f"console-{name}-{scheme}.png")
            await console.page.close()
    for name, scheme, _ in shots:
        assert (pictures / f"console-{name}-{scheme}.png").stat().st_size < 200_000
        assert f"images/console-{name}-{scheme}.png" in shown
