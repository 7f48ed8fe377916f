"""Places an order, and writes the message about it in the same transaction: both or neither.

    place_order.py postgres://app@127.0.0.1/shop 17 100
    place_order.py sqlite:///var/lib/shop.db 17 100
    place_order.py postgres://app@127.0.0.1/shop 18 100 --fail      something goes wrong before the commit

The tables are made by `baton outbox init`, and `baton relay` brings what was committed to the engine. PostgreSQL needs the driver in
requirements.txt; SQLite nothing beside Python.
"""

import argparse
import json
import sqlite3
from contextlib import closing

ORDERS = "CREATE TABLE IF NOT EXISTS orders (id bigint PRIMARY KEY, amount bigint NOT NULL)"
PLACE = "INSERT INTO orders (id, amount) VALUES (?, ?)"
# An id of our own: an order that is placed twice is refused here as well. Without one a row gets a random id.
TELL = "INSERT INTO baton_outbox (id, topic, key, payload, headers) VALUES (?, 'orders', ?, ?, ?)"


def connect(address):
    """The connection, and how its driver marks a parameter."""
    if address.startswith("sqlite://"):
        return sqlite3.connect(address.removeprefix("sqlite://")), "?"
    import psycopg

    return psycopg.connect(address), "%s"


def place_order(connection, mark, order, amount, fail):
    try:
        connection.execute(PLACE.replace("?", mark), (order, amount))
        payload = json.dumps({"order": order, "amount": amount}).encode()
        headers = json.dumps({"placed-by": "python", "tenant": "north"})
        # Messages with the same key arrive in the order in which they were written.
        key = str(order).encode()
        connection.execute(TELL.replace("?", mark), (f"order-{order}", key, payload, headers))
        if fail:
            raise RuntimeError(f"order {order} failed before it was committed")
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("database")
    arguments.add_argument("order", type=int)
    arguments.add_argument("amount", type=int)
    arguments.add_argument("--fail", action="store_true")
    given = arguments.parse_args()
    connection, mark = connect(given.database)
    with closing(connection):
        connection.execute(ORDERS)
        connection.commit()
        place_order(connection, mark, given.order, given.amount, given.fail)
    print(f"order {given.order} is placed")


main()
