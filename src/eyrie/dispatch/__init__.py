"""The dispatch process: asynchronous inference and the queues of the SQS API, over one durable file.

`app` wires it; `accept` answers InvokeEndpointAsync, `runner` brings requests to instances, `storer` makes outcomes
visible, `notifier` tells topics, `queues` is the SQS API.
"""
