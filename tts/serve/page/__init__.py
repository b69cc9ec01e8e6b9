"""What the web page is made of: its tabs, the work behind their buttons, pictures and words. tts/serve/demo.py opens it."""
