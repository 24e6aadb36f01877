"""The Ousel engine: events in from Kafka, fresh recommendations out by gRPC."""
