from command_line import glassformer, refused

__all__ = ["glassformer", "refused"]
