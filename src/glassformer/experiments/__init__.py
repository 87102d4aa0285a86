"""Level 9: experiments that a command runs: parts of the house put together to answer one question with a figure.

    loss_against_compute    what a loss costs, for seventy years of language models
    bottleneck              how much of a sentence fits into one vector
    compare_history         both, with pictures and a page

They stand beside the recipes and like them may use everybody below; a result is plain data, so that it can be drawn,
kept as JSON and compared. Each module holds a function of its own name.
"""
