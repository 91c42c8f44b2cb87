"""Floor 4: a gateway worker. InvokeEndpoint is answered here, with nothing but route tables; the rest is forwarded."""
