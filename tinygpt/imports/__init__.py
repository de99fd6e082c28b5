"""Models of other programs as artifacts: a GPT-2 folder of Hugging Face's transformers.

folder.py finds its files, config_file.py reads its shape, tokenizer_files.py its tokenizer and
weight_files.py its weights; model.py makes artifacts of them. Nothing in the folder is trusted:
what differs from the GPT-2 that lm/model.py computes is refused by name.
"""
