"""Consume, double, produce, exactly-once: confluent-kafka alone.   transaction.py BROKERS INPUT OUTPUT"""
import sys
import uuid

from confluent_kafka import Consumer, Producer

brokers, source, target = sys.argv[1:]
consumer = Consumer({
    "bootstrap.servers": brokers, "group.id": f"python-{uuid.uuid4()}", "auto.offset.reset": "earliest",
    "enable.auto.commit": False, "isolation.level": "read_committed", "enable.partition.eof": True,
})
producer = Producer({"bootstrap.servers": brokers, "transactional.id": f"python-{uuid.uuid4()}"})
consumer.subscribe([source])
producer.init_transactions(60)
for attempt in ("abort", "commit"):
    producer.begin_transaction()
    done = 0
    while True:
        message = consumer.poll(60)
        if message is None:
            sys.exit("nothing within a minute")
        if message.error():
            break  # the end of the partition
        producer.produce(target, str(2 * int(message.value())).encode())
        done += 1
    producer.send_offsets_to_transaction(consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), 60)
    if attempt == "abort":
        producer.abort_transaction(60)
        for partition in consumer.assignment():
            partition.offset = 0
            consumer.seek(partition)
    else:
        producer.commit_transaction(60)
        print(done)
committed = consumer.committed(consumer.assignment(), 60)
assert [p.offset for p in committed] == [20], committed
consumer.close()
