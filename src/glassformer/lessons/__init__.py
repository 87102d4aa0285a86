"""The ladder: ten small files from a table of pairs to a GPT and a translator, each complete by itself, in plain torch.

    1 bigram   2 averaging   3 one head   4 heads   5 feed-forward   6 blocks   7 layer norm   8 scaled   9 glassformer
    10 translation

They repeat each other on purpose, so that each can be read alone and two neighbours compared line by line. None imports
anything of the package but the ninth, which shows that the package computes the same. `attention_as_messages` is
attention once more, as a loop over the edges of a graph. `runner` runs, compares and prints the lessons.
"""
