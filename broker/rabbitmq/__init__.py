"""The only door to RabbitMQ; nobody else imports aio-pika or aiormq.

connection.py keeps two plain connections up, consuming.py and publishing.py use them, rabbit.py is what the
broker sees, arrivals.py what crosses the door, properties.py what strangers wrote on it. Nothing here
declares (topology_ops.py does), nothing nacks, and no task of ours ends because a channel does.
"""

from broker.rabbitmq.connection import Channel, Connection, DeclareRefused, asked, connected
from broker.rabbitmq.messages import AckToken, Arrival, Outgoing, Published
from broker.rabbitmq.queue_reader import FetchedMessage, QueueReader, open_queue_reader
from broker.rabbitmq.rabbit import Rabbit
from broker.rabbitmq.rpc_client import RpcClient, open_rpc_client

__all__ = [
    "AckToken",
    "Arrival",
    "Channel",
    "Connection",
    "DeclareRefused",
    "FetchedMessage",
    "Outgoing",
    "Published",
    "QueueReader",
    "Rabbit",
    "RpcClient",
    "asked",
    "connected",
    "open_queue_reader",
    "open_rpc_client",
]
