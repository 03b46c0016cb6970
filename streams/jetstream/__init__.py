"""The stream PLANS and the stream AUDIT in NATS JetStream: the one package that speaks NATS."""
