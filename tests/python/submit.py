"""Contributes JSON rows and reads the receipt with confluent-kafka alone: no code of Hokusai, nothing but its published Avro schema.

    submit.py BROKERS PREFIX MODEL SCHEMA.avsc [KEY_ID PUBLIC_KEY] < rows.json

With a key the rows are sealed to it by the function that README.md shows (in a module `seal` on the path). Prints the receipt
as one line of JSON.
"""
import io
import json
import struct
import sys
import uuid

from confluent_kafka import Consumer, Producer, TopicPartition

brokers, prefix, model, schema_path, *key = sys.argv[1:]
rows = json.load(sys.stdin)
contribution = f"python-{uuid.uuid4()}"

NAMED = {}


def long(data):
    value = shift = 0
    while True:
        byte = data.read(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1)
        shift += 7


def decode(schema, data):
    """Avro's binary encoding, as its specification has it."""
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(schema, list):
        return decode(schema[long(data)], data)
    if isinstance(kind, (dict, list)):
        return decode(kind, data)
    if kind == "record":
        NAMED[schema["name"]] = NAMED[f"{schema.get('namespace', '')}.{schema['name']}"] = schema
        return {field["name"]: decode(field["type"], data) for field in schema["fields"]}
    if kind == "array":
        items = []
        while (count := long(data)) != 0:
            if count < 0:
                count, _ = -count, long(data)
            items += [decode(schema["items"], data) for _ in range(count)]
        return items
    if kind == "null":
        return None
    if kind == "boolean":
        return data.read(1) == b"\1"
    if kind in ("int", "long"):
        return long(data)
    if kind == "float":
        return struct.unpack("<f", data.read(4))[0]
    if kind == "double":
        return struct.unpack("<d", data.read(8))[0]
    if kind == "string":
        return data.read(long(data)).decode()
    if kind == "bytes":
        return data.read(long(data))
    return decode(NAMED[kind], data)


def receipt_of(value):
    if value[:1] == b"{":
        return json.loads(value)
    header = 10 if value[:2] == b"\xc3\x01" else 5  # single-object encoding, or Confluent framing
    with open(schema_path, encoding="utf-8") as f:
        return decode(json.load(f), io.BytesIO(value[header:]))


consumer = Consumer({"bootstrap.servers": brokers, "group.id": contribution, "isolation.level": "read_committed", "enable.auto.commit": False})
topic = f"{prefix}receipts"
partitions = consumer.list_topics(topic, 60).topics[topic].partitions
consumer.assign([TopicPartition(topic, p, consumer.get_watermark_offsets(TopicPartition(topic, p), 60)[1]) for p in partitions])

producer = Producer({"bootstrap.servers": brokers})
value = {"contribution_id": contribution, "contributor": "python", "model": model, "format": "json", "rows": rows}
if key:
    from seal import seal

    value["chunk"], value["chunks"] = 0, 1
    value = seal(value, json.dumps(value.pop("rows")).encode(), *key)
producer.produce(f"{prefix}contributions", json.dumps(value).encode())
if producer.flush(60):
    sys.exit("the contribution could not be produced within a minute")

while True:
    message = consumer.poll(120)
    if message is None:
        sys.exit("no receipt within two minutes")
    if message.error():
        sys.exit(str(message.error()))
    if message.key() == contribution.encode():
        break
print(json.dumps(receipt_of(message.value())))
consumer.close()
