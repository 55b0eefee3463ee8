"""Folders that describe Z-Image and Qwen-Image with a ControlNet for depth, in diffusers' layout, without weights."""

from pathlib import Path

from benchmarks.sd_shapes import write

_SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def z_image(folder: Path) -> None:
    """Writes the shape of Z-Image and of its full Fun ControlNet, version 2.1."""
    index = {
        "_class_name": "ZImagePipeline",
        "transformer": ["diffusers", "ZImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "Qwen3Model"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    vae = {  # FLUX.1's
        "_class_name": "AutoencoderKL",
        "sample_size": 1024,
        "latent_channels": 16,
        "layers_per_block": 2,
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    text = {  # Qwen3-4B
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    }
    net = {
        "_class_name": "ZImageControlNetModel",
        "control_layers_places": list(range(0, 30, 2)),
        "control_refiner_layers_places": [0, 1],
        "control_in_dim": 33,
        "add_control_noise_refiner": "control_noise_refiner",
    }
    write(
        folder,
        {
            "model_index.json": index,
            "transformer/config.json": {"_class_name": "ZImageTransformer2DModel"},  # the class's own shape
            "vae/config.json": vae,
            "text_encoder/config.json": text,
            "scheduler/scheduler_config.json": _SCHEDULER,
            "controlnet-depth/config.json": net,
        },
    )


def qwen_image(folder: Path) -> None:
    """Writes the shape of Qwen-Image and of its union ControlNet."""
    index = {
        "_class_name": "QwenImagePipeline",
        "transformer": ["diffusers", "QwenImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLQwenImage"],
        "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
        "tokenizer": ["transformers", "Qwen2Tokenizer"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    text = {  # Qwen2.5-VL-7B
        "model_type": "qwen2_5_vl",
        "text_config": {
            "model_type": "qwen2_5_vl_text",
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1000000.0},
        },
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
        },
    }
    write(
        folder,
        {
            "model_index.json": index,
            "transformer/config.json": {"_class_name": "QwenImageTransformer2DModel"},  # the class's own shape
            "vae/config.json": {"_class_name": "AutoencoderKLQwenImage"},
            "text_encoder/config.json": text,
            "scheduler/scheduler_config.json": {**_SCHEDULER, "use_dynamic_shifting": True},
            "controlnet-depth/config.json": {"_class_name": "QwenImageControlNetModel", "num_layers": 5},
        },
    )
