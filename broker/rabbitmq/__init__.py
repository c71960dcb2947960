"""The only door to RabbitMQ; nobody else imports aio-pika or aiormq.

connection.py keeps two plain connections up, consuming.py and publishing.py use them, rabbit.py is what the
broker sees, arrivals.py what crosses the door, properties.py what strangers wrote on it. Nothing here
declares (topology_ops.py does), nothing nacks, and no task of ours ends because a channel does.
"""

from broker.rabbitmq.connection import Asked, Channel, Connection, asked, connected
from broker.rabbitmq.drawer import Drawer, Drawn, drawer
from broker.rabbitmq.mailbox import Mailbox, mailbox
from broker.rabbitmq.messages import Arrival, Outgoing, Published, Receipt
from broker.rabbitmq.rabbit import Rabbit

__all__ = [
    "Arrival",
    "Asked",
    "Channel",
    "Connection",
    "Drawer",
    "Drawn",
    "Mailbox",
    "Outgoing",
    "Published",
    "Rabbit",
    "Receipt",
    "asked",
    "connected",
    "drawer",
    "mailbox",
]
