"""What a client that is not ours finds at the broker: python3 seen_by_pika.py URL QUEUE

Declares the exchange and the queues as the contract has them, which the broker refuses where they differ; then takes
all messages out of a queue and writes them with their properties as JSON.
"""

import json
import sys

import pika

url, own = sys.argv[1:]
parameters = pika.URLParameters(url)
parameters.socket_timeout = 20
parameters.blocked_connection_timeout = 20
connection = pika.BlockingConnection(parameters)
channel = connection.channel()

channel.exchange_declare("order", exchange_type="direct", durable=True)
for queue in ["send-email", "clear-cart", "update-inventory"]:
    dead = queue + ".dead"
    channel.queue_declare(dead, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare(
        queue,
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 1000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )

# A queue gets what is published under its name. (With nobody of ours to take it away, it would be seen in the queue;
# here the dead letters show that the key arrives: what can not be read is put away.)
channel.confirm_delivery()
properties = pika.BasicProperties(message_id="from-pika", delivery_mode=2)
channel.basic_publish("order", "update-inventory", b"no JSON", properties, mandatory=True)
for _ in range(2000):
    frame, _properties, _body = channel.basic_get("update-inventory.dead", auto_ack=True)
    if frame is not None:
        break
    connection.sleep(0.01)
assert frame is not None, "the message is not put away"

# There are no queues of the others' events.
for queue in ["order-status", "stock-changed"]:
    try:
        connection.channel().queue_declare(queue, passive=True)
        raise AssertionError(f"there is a queue {queue}")
    except pika.exceptions.ChannelClosedByBroker as error:
        assert error.reply_code == 404, error

messages = []
while True:
    frame, properties, body = channel.basic_get(own, auto_ack=True)
    if frame is None:
        break
    messages.append(
        {
            "exchange": frame.exchange,
            "routing_key": frame.routing_key,
            "message_id": properties.message_id,
            "type": properties.type,
            "content_type": properties.content_type,
            "delivery_mode": properties.delivery_mode,
            "timestamp": properties.timestamp,
            "payload": json.loads(body),
        }
    )
connection.close()
json.dump(messages, sys.stdout)
