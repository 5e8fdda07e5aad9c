"""One entrance to attention, whatever the mask and the backend."""
