"""Reading models: whatever format they are stored in, without running code from them."""
