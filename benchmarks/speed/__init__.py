"""What speed costs and gives: one module a question; `make bench` asks them all."""
