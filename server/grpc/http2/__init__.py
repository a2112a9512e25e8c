"""gRPC over HTTP/2 on the event loop: our own, because a call here costs a tenth of grpc.aio's."""
