"""Any recording -> 16 kHz mono samples in bounded memory -> log-mel windows."""
