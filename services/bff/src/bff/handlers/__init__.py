"""The operations of the contract, each a method named after its operationId."""
