"""What belongs to the process and not to speech recognition: fork and pickle, text to streams."""
