"""gRPC on ASGI: standard servicers and stubs, our transport.

`server` serves what grpcio-tools' `add_…Servicer_to_server` registers as an ASGI application; `channel` carries
the generated stubs over any HTTP/2 transport; `policy` enforces the contract around every method; `client` is how a
service calls another one.
"""
