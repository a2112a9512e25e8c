"""Steps: computed by a model on a device, recorded, measured."""
