"""How well the service serves one caller while another one attacks it: `make abuse-serving`."""
