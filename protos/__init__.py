"""The wire messages. `*_pb2.py` are made by `python -m trivet.protos.generate`; never edit them."""
