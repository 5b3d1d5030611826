"""Recomputes the stock of every product from the topic stock-decisions alone.

    recompute.py BROKERS TOPIC_PREFIX REGISTRY_URL

Shares no code with the product: it reads both topics with Confluent's client, decodes them with
fastavro by the schemas that the registry has, tells by the fence's rule which decisions count,
and reckons each product's units and counts event by event. What a decision states of stock, counts,
version and chain must be what is reckoned here. Prints everything as one JSON object.
"""

import hashlib
import json
import sys
from collections import Counter

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

# How long the brokers may be silent, in seconds.
PATIENCE = 60
# A zero byte and the schema's id, before the Avro value.
HEADER_BYTES = 5
# The chain hash is a decision's last field.
CHAIN_BYTES = 32


def main(brokers, prefix, registry_url):
    decode = decoder(registry_url)
    attempts, decisions = prefix + "purchase-attempts", prefix + "stock-decisions"
    commands = {place(message): decode_or_none(decode, message) for message in records(brokers, attempts)}
    fences, products, seen, answered = {}, {}, Counter(), set()
    for message in records(brokers, decisions):
        record = decode_or_none(decode, message)
        fence = fences.setdefault(message.partition(), Fence())
        verdict = fence.take(message.offset(), record)
        seen[verdict] += 1
        if verdict != "counts":
            continue
        if record["skipped"] is not None:
            answered.add((message.partition(), record["skipped"]["answers"]))
            seen["skipped"] += 1
            continue
        decision = record["decision"]
        answers = (message.partition(), decision["answers"])
        check(message, commands[answers]["product_id"], decision["product_id"], "product of the command")
        answered.add(answers)
        product = products.setdefault(decision["product_id"], Product())
        product.take(message, decision)
    report = {
        "commands": Counter(case(it) if it else "undecodable" for it in commands.values()),
        "unanswered": len(commands.keys() - answered),
        "decisions": seen,
        "products": {name: product.figures() for name, product in products.items()},
    }
    json.dump(report, sys.stdout, indent=1)


class Fence:
    """What a reader of one partition of stock-decisions remembers to tell what counts."""

    def __init__(self):
        self.claim = -1
        self.answered = -1

    def take(self, offset, record):
        """A claim's own offset is its number. A decision or skipped record counts only if its claim
        is the current one, it follows the last that counted, and it answers a later record than
        that did. What cannot be decoded never counts."""
        if record is None:
            return "dropped"
        if record["claim"] is not None:
            self.claim = offset
            return "claims"
        decision = record["decision"] or record["skipped"]
        current = decision["claim"] == self.claim and self.claim >= 0
        if current and decision["follows"] == self.answered < decision["answers"]:
            self.answered = decision["answers"]
            return "counts"
        return "dropped"


class Product:
    """One product, reckoned from its events."""

    def __init__(self):
        self.version = 0
        self.round = 0
        self.chain = bytes(CHAIN_BYTES)
        self.begin_round()

    def begin_round(self):
        self.total = self.reserved = self.sold = 0
        self.tally = dict.fromkeys(("accepted", "refused", "cancelled", "expired"), 0)

    def take(self, message, decision):
        """The next decision that counts. Version 0 is that of a product without a sale, of which
        nothing is left."""
        if decision["version"] == 0:
            Product().follow(message, decision, 0)
        else:
            self.follow(message, decision, self.version + 1)

    def follow(self, message, decision, version):
        self.version = version
        for event in decision["events"]:
            name = case(event)
            apply = getattr(self, "on_" + name, None)
            if apply is not None:
                apply(event[name])
        value = message.value()[HEADER_BYTES:-CHAIN_BYTES]
        self.chain = hashlib.sha256(self.chain + value).digest()
        check(message, decision["version"], self.version, "version")
        check(message, decision["stock"], self.stock(), "stock")
        check(message, decision["tally"], self.tally, "tally")
        check(message, decision["chain"], self.chain, "chain")

    def on_sale_set(self, event):
        if event["round"] > self.round:
            self.begin_round()
        self.round = event["round"]
        self.total = event["terms"]["stock"]

    def on_stock_set(self, event):
        self.total = event["stock"]

    def on_order_accepted(self, event):
        self.move(event["order"], 1)
        self.tally["accepted"] += 1

    def on_attempt_refused(self, event):
        """An attempt that was made for another round has no outcome in this one."""
        if event["reason"] != "another_round":
            self.tally["refused"] += 1

    def on_order_released(self, event):
        self.move(event["order"], -1)
        self.tally[event["cause"]] += 1

    def move(self, order, sign):
        """An order that is held until a time has its units reserved, any other has them sold."""
        if order["hold_until_ms"] is None:
            self.sold += sign * order["quantity"]
        else:
            self.reserved += sign * order["quantity"]

    def stock(self):
        available = self.total - self.reserved - self.sold
        return {
            "total": self.total,
            "available": available,
            "reserved": self.reserved,
            "sold": self.sold,
        }

    def figures(self):
        return {
            "version": self.version,
            "round": self.round,
            "stock": self.stock(),
            "tally": self.tally,
        }


def records(brokers, topic):
    """Every record of a topic, partition by partition, up to where each ends now."""
    consumer = Consumer(
        {"bootstrap.servers": brokers, "group.id": "recompute", "enable.auto.commit": False}
    )
    for number in sorted(consumer.list_topics(topic, PATIENCE).topics[topic].partitions):
        begin, end = consumer.get_watermark_offsets(TopicPartition(topic, number), PATIENCE)
        consumer.assign([TopicPartition(topic, number, begin)])
        while begin < end:
            message = consumer.poll(PATIENCE)
            if message is None:
                sys.exit(f"{topic}, partition {number}: no record {begin} in {PATIENCE} s")
            if message.error():
                sys.exit(f"{topic}, partition {number}: {message.error()}")
            begin = message.offset() + 1
            yield message
    consumer.close()


def decoder(registry_url):
    deserializer = AvroDeserializer(SchemaRegistryClient({"url": registry_url}))

    def decode(message):
        context = SerializationContext(message.topic(), MessageField.VALUE)
        return deserializer(message.value(), context)

    return decode


def decode_or_none(decode, message):
    """The record, or none if it is garbage, a foreign record or a tombstone."""
    try:
        return decode(message)
    except Exception:
        return None


def case(record):
    """Which of the cases is there, each of which has a nullable field of its own."""
    others = ("product_id", "if_version")
    cases = [name for name, value in record.items() if name not in others and value is not None]
    if len(cases) != 1:
        sys.exit(f"not exactly one case: {record}")
    return cases[0]


def place(message):
    return (message.partition(), message.offset())


def check(message, found, expected, what):
    if found != expected:
        where = f"{message.topic()}, partition {message.partition()}, offset {message.offset()}"
        sys.exit(f"{where}: {what} is {found}, but should be {expected}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
