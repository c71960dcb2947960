"""RabbitMQ. Only this package imports aio-pika, aiormq and pamqp.

rabbit.py is the interface for the rest of the broker. connection.py keeps connections up, subscription.py consumes,
confirms.py publishes; transport.py and frames.py write and read the frequent frames without the library. messages.py
has the messages as data, properties.py decodes their properties. topology.py is the topology as data, declare.py
declares it. consumer.py runs a task for each arrival; such a task does not end with its channel. There is no nack.
The rules and their reasons: docs/rabbitmq.md#rules.
"""

from broker.rabbitmq.connection import (
    Channel,
    Connection,
    DeclareRefused,
    on_own_channel,
    temporary_connection,
)
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
    "on_own_channel",
    "open_queue_reader",
    "open_rpc_client",
    "temporary_connection",
]
