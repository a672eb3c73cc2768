"""Our own TFDS builders, by name; importing one registers it with TFDS."""

EMBEDDED = {"mnist5k": "jaxcnn.data.builders.mnist5k"}
