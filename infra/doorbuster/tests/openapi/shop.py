"""A shopper that uses the generated client alone: lists the sales, orders, follows the attempt to its
outcome, and cancels the order. The argument is the address of the service."""

import sys
from uuid import uuid4

from shop_client import Client
from shop_client.api.shoppers import (
    cancel_order,
    get_attempt,
    get_command,
    get_sale,
    list_orders,
    list_sales,
    place_order,
)
from shop_client.models import Code, CommandStatus, OrderRequest, Problem, SaleState, Status

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)
buyer = f"buyer-{uuid4()}"


def parsed(response, status):
    assert response.status_code == status, (response.status_code, response.content)
    assert response.parsed is not None, response.content
    return response.parsed


page = parsed(list_sales.sync_detailed(client=client), 200)
[sale] = [sale for sale in page.sales if sale.product_id == "boot"]
assert sale.state == SaleState.OPEN and sale.stock.available == 1, sale
assert sale.opens_at < page.server_time, "times are read as times"

order = {"client": client, "x_buyer_id": buyer, "idempotency_key": str(uuid4())}
order["body"] = OrderRequest(quantity=1)
receipt = parsed(place_order.sync_detailed("boot", **order), 202)
again = parsed(place_order.sync_detailed("boot", **order), 202)
assert again.attempt_id == receipt.attempt_id, "the same key is the same attempt"

attempt = parsed(get_attempt.sync_detailed(receipt.attempt_id, client=client, wait=30), 200)
assert attempt.status == Status.SOLD, attempt
assert attempt.position.offset == receipt.position.offset, attempt

cancel = cancel_order.sync_detailed(
    "boot", receipt.attempt_id, client=client, x_buyer_id=buyer
)
cancelled = parsed(cancel, 202)
command_id = cancel.headers["Location"].removeprefix("/api/commands/")
command = get_command.sync_detailed(command_id, client=client, x_buyer_id=buyer, wait=30)
assert parsed(command, 200).status == CommandStatus.DONE, command
at_least = f"{cancelled.position.partition}:{cancelled.position.offset}"
attempt = parsed(
    get_attempt.sync_detailed(receipt.attempt_id, client=client, wait=30, at_least=at_least), 200
)
assert attempt.status == Status.CANCELLED, attempt
orders = parsed(
    list_orders.sync_detailed(client=client, x_buyer_id=buyer, at_least=at_least), 200
)
assert [order.status for order in orders.orders] == [Status.CANCELLED], orders
sale = parsed(get_sale.sync_detailed("boot", client=client, at_least=at_least), 200)
assert sale.stock.available == 1, sale

problem = parsed(get_attempt.sync_detailed(uuid4(), client=client), 404)
assert isinstance(problem, Problem) and problem.code == Code.UNKNOWN_ATTEMPT, problem
