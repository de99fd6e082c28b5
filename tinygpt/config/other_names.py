"""Names that other tools give to our keys: nanoGPT, the HF Trainer, llama2.c, GPT-2's config."""

_NAMES = {
    "data.source": "data dataset dataset_name data_dir data_path input input_file input_text "
    "corpus text_file train_file train_data",
    "data.text_field": "text_column column text_key",
    "data.max_documents": "max_train_samples max_samples",
    "tokenizer.vocab_size": "vocab n_vocab",
    "dataset.val_fraction": "val_split validation_split val_ratio val_size",
    "model.d_model": "n_embd n_embed embed_dim embedding_dim hidden_size dim d_embed",
    "model.n_layers": "n_layer num_layers num_hidden_layers layers depth",
    "model.n_heads": "n_head num_heads num_attention_heads heads",
    "model.d_ff": "intermediate_size n_inner ffn_dim hidden_dim",
    "model.context_length": "block_size seq_len seq_length max_seq_len max_seq_length n_ctx "
    "n_positions max_position_embeddings context context_size context_window",
    "model.activation": "hidden_act activation_function",
    "train.max_steps": "steps max_iters iters iterations n_steps num_steps train_steps n_iters",
    "train.batch_size": "bs per_device_train_batch_size train_batch_size micro_batch_size",
    "train.grad_accum_steps": "gradient_accumulation_steps grad_accum accumulation_steps",
    "train.learning_rate": "lr max_lr peak_lr",
    "train.beta1": "adam_beta1",
    "train.beta2": "adam_beta2",
    "train.weight_decay": "wd",
    "train.grad_clip": "max_grad_norm clip gradient_clip clip_grad",
    "train.schedule": "lr_scheduler_type lr_scheduler lr_schedule scheduler",
    "train.warmup_steps": "warmup_iters warmup num_warmup_steps",
    "train.warmup_fraction": "warmup_ratio",
    "train.optimizer": "optim",
    "train.precision": "dtype mixed_precision",
    "train.eval_every": "eval_interval eval_steps val_interval",
    "train.seed": "random_seed",
    "sample.prompt": "start text prompt_text",
    "sample.temperature": "temp t",
    "sample.max_new_tokens": "length max_tokens max_length max_len n_tokens num_tokens tokens "
    "n_predict gen_len",
    "sample.num_samples": "n num n_samples samples count num_return_sequences",
    "runtime.threads": "num_threads n_threads cpu_threads",
    "runtime.checkpoint_every": "save_steps save_interval save_every checkpoint_interval",
    "runtime.keep_checkpoints": "save_total_limit",
}
OTHER_NAMES = {name: key for key, names in _NAMES.items() for name in names.split()}
"""The key that each of these names stands for, e.g., {"lr": "train.learning_rate"}."""
