"""A group member in a process of its own, to be killed: prints `ASSIGNED n`, and `SEEN value` before each commit."""

import sys

from confluent_kafka import Consumer, KafkaException


def main():
    bootstrap, group, topic, session_ms, strategy = sys.argv[1:]
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "session.timeout.ms": int(session_ms),
            "heartbeat.interval.ms": int(session_ms) // 4,
            "partition.assignment.strategy": strategy,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    reader.subscribe([topic], on_assign=lambda _, partitions: print(f"ASSIGNED {len(partitions)}", flush=True))
    while True:
        message = reader.poll(0.1)
        if message is None or message.error() is not None:
            continue
        print(f"SEEN {message.value().decode()}", flush=True)
        try:
            reader.commit(message=message, asynchronous=False)
        except KafkaException:
            pass  # the group rebalances; whoever has the partition now sees the message again


main()
