"""The reference at /docs in a real browser: offline, logged in by itself, with examples that work as they stand."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pytest
from contracts.bff.v1 import models
from contracts.bff.v1.operations import OPERATIONS
from contracts.permissions import ROLE_PERMISSIONS
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, expect

from conftest import People, Platform

pytestmark = pytest.mark.browser

# A busy machine draws slowly; what is not there at all is not there after this either.
expect.set_options(timeout=20_000)

# Opens one operation after the other and reads the cells of the table in its description.
_ALL_TERMS = """async (ids) => {
  const said = {};
  for (const id of ids) {
    const block = document.querySelector(`[id$='-${id}']`);
    const cells = () => [...block.querySelectorAll(".opblock-description-wrapper td")];
    block.querySelector(".opblock-summary-control").click();
    while (cells().length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    said[id] = cells().map((cell) => cell.textContent);
    block.querySelector(".opblock-summary-control").click();
  }
  return said;
}"""


@dataclass
class Reference:
    """The page, and everything that went wrong on it."""

    page: Page
    url: str
    troubles: list[str] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)

    async def open(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))
        await self.page.goto(f"{self.url}/docs")
        await expect(self.page.locator(".opblock")).to_have_count(len(OPERATIONS))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.troubles.append(message.text)

    async def log_in(self, login: models.LoginRequest) -> None:
        await self.page.get_by_role("button", name="Authorize").click()
        await self.page.locator("#email").fill(login.email)
        await self.page.locator("#password").fill(login.password)
        await self.page.get_by_role("button", name="Log in", exact=True).click()
        await expect(self.page.get_by_role("status")).to_contain_text(login.email)

    def block(self, operation: str) -> Locator:
        return self.page.locator(f"[id$='-{operation}']")

    async def toggle(self, operation: str) -> Locator:
        block = self.block(operation)
        # Not a click with a mouse, which waits until nothing on the page moves any more: seconds, where all is open.
        await block.locator(".opblock-summary-control").dispatch_event("click")
        return block

    async def attempt(self, operation: str) -> int:
        """Execute an operation as it stands; its status."""
        block = await self.toggle(operation)
        # The button is there before Swagger UI has read the operation whole, and until then a click sends nothing.
        await expect(block.locator(".responses-table .response").first).to_be_attached()
        for parameter in await block.locator("tr[data-param-in='path'] input").all():
            await expect(parameter).to_have_value(re.compile(".+"))
        if await block.locator(".btn-clear").count():
            await block.locator(".btn-clear").dispatch_event("click")
        await block.locator(".execute").dispatch_event("click")
        status = block.locator(".live-responses-table tbody .response-col_status").first
        await expect(status).to_have_text(re.compile(r"^\d{3}"))
        answered = int((await status.inner_text())[:3])
        await self.toggle(operation)
        return answered


async def _open(browser: Browser, url: str, **options: str) -> Reference:
    page = await browser.new_page(ignore_https_errors=True, **options)  # type: ignore[arg-type]
    reference = Reference(page, url)
    await reference.open()
    return reference


@pytest.mark.parametrize("endpoint", ["public", "public_tls"])
async def test_it_asks_nobody_else_and_breaks_no_rule_of_its_own_policy(
    browser: Browser, platform: Platform, endpoint: str
) -> None:
    url = platform.status["endpoints"][endpoint]
    reference = await _open(browser, url)
    await reference.toggle("createOrder")
    assert [other for other in reference.requested if not other.startswith((url, "data:"))] == []
    assert reference.troubles == []


async def test_by_keyboard_one_logs_in_stays_so_after_a_reload_and_logs_out(browser: Browser, people: People) -> None:
    _, login = await people.newcomer()
    reference = await _open(browser, people.platform.url)
    page = reference.page
    await page.get_by_role("button", name="Authorize").focus()
    await page.keyboard.press("Enter")
    await page.keyboard.type(login.email)
    await page.keyboard.press("Tab")
    await page.keyboard.type("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).not_to_be_empty()
    await page.locator("#password").fill(login.password)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_contain_text(login.email)
    assert await reference.attempt("getMe") == 200

    await page.reload()
    await expect(page.get_by_role("status")).to_contain_text(login.email)
    assert await reference.attempt("getMe") == 200
    # Neither the password nor the refresh token can be had by a script.
    kept = await page.evaluate("JSON.stringify([sessionStorage, localStorage, document.cookie])")
    assert login.password not in kept
    assert "refresh" not in kept

    # An access token that has expired is renewed by the cookie, unseen.
    await page.evaluate(
        """() => { const kept = JSON.parse(sessionStorage["reference.session"]);
                   sessionStorage["reference.session"] = JSON.stringify({ ...kept, token: "spent", expires: 0 }); }"""
    )
    await page.reload()
    await expect(page.get_by_role("status")).to_contain_text(login.email)
    assert await reference.attempt("getMe") == 200

    await page.get_by_role("button", name="Authorize").click()
    await page.get_by_role("button", name="Log out").press("Enter")
    await expect(page.get_by_role("status")).to_have_text("Not logged in")
    assert await reference.attempt("getMe") == 401


async def test_a_new_customer_is_one_click(browser: Browser, platform: Platform) -> None:
    reference = await _open(browser, platform.url)
    await reference.page.get_by_role("button", name="Authorize").click()
    await reference.page.get_by_role("button", name="Register a new customer").click()
    await expect(reference.page.get_by_role("status")).to_contain_text("visitor-")
    assert await reference.attempt("getMyOverview") == 200


async def test_the_examples_of_a_customer_work_as_they_stand(browser: Browser, people: People) -> None:
    reference = await _open(browser, people.platform.url)
    assert await reference.attempt("register") == 201
    assert await reference.attempt("login") == 200
    _, login = await people.newcomer()
    await reference.log_in(login)
    for operation in ("getMe", "updateMe", "listProducts", "getProduct", "getMyOverview", "listMySessions"):
        assert await reference.attempt(operation) == 200, operation
    # A fresh key at each try: these are two orders.
    assert [await reference.attempt("createOrder") for _ in range(2)] == [201, 201]
    for operation in ("listOrders", "getOrder", "payOrder", "cancelOrder", "getOrder"):
        assert await reference.attempt(operation) == 200, operation
    orders = (await (await people.log_in(login)).list_orders()).data.items
    # The paid one is the newest of all, which another test's support may have moved on meanwhile.
    assert min(order.status for order in orders) == "cancelled"
    assert {order.status for order in orders} & {"paid", "shipped", "delivered", "refunded"}
    assert await reference.attempt("logout") == 204
    await expect(reference.page.get_by_role("status")).to_have_text("Not logged in")


async def test_the_examples_of_support_and_administration_work_as_they_stand(browser: Browser, people: People) -> None:
    customer, _ = await people.newcomer()
    product = await people.product()
    for _ in range(2):
        order = await people.order(customer, (product, 1))
        payment = models.PaymentRequest(payment_token="tok_approved")
        await customer.pay_order(order.id, payment, idempotency_key=f"pay-{order.id}")
    reference = await _open(browser, people.platform.url)
    await reference.log_in(people.platform.account("support"))
    for operation in ("listAllOrders", "shipOrder", "deliverOrder", "refundOrder", "getOrderHistory"):
        assert await reference.attempt(operation) == 200, operation
    await reference.log_in(people.platform.account("admin"))
    assert await reference.attempt("createProduct") == 201
    for operation in ("updateProduct", "adjustStock", "listUsers", "updateUser"):
        assert await reference.attempt(operation) == 200, operation


async def test_each_operation_says_its_permission_rate_limit_and_timeout(browser: Browser, platform: Platform) -> None:
    reference = await _open(browser, platform.url)
    said = await reference.page.evaluate(_ALL_TERMS, [operation.id for operation in OPERATIONS])
    for operation in OPERATIONS:
        roles = [role for role, granted in ROLE_PERMISSIONS.items() if operation.permission in granted]
        permission = f"{operation.permission} ({', '.join(roles)})" if roles else "none: no login needed"
        counted = "" if operation.rate_limit.globally else ", in each edge"
        limit = f"{operation.rate_limit.requests} in {operation.rate_limit.seconds} s{counted}"
        assert said[operation.id] == [permission, limit, f"{operation.timeout:g} s"], operation.id


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
async def test_it_is_light_or_dark_as_the_reader_wants(
    browser: Browser, platform: Platform, scheme: str, dark: bool
) -> None:
    reference = await _open(browser, platform.url, color_scheme=scheme)
    block = await reference.toggle("createOrder")
    luminance = """element => { const [r, g, b] = getComputedStyle(element).color.match(/[0-9.]+/g).map(Number);
                                return (r + g + b) / 765; }"""
    for cell in await block.locator(".opblock-description-wrapper :is(td, th)").all():
        assert (await cell.evaluate(luminance) > 0.5) == dark
