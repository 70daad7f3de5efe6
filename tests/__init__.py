"""The specification of langchain-mixture."""
