"""An HTTP service that answers pictures; `python -m service` starts it."""
