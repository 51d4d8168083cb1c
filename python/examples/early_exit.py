"""Records a model of Hugging Face that drafts with its first layers: `python early_exit.py MODEL LAYERS OUT.jsonl PROMPT...`."""

from __future__ import annotations

import sys

from transformers import AutoModelForCausalLM, AutoTokenizer

import radialsim


def main(name: str, layers: int, out: str, prompts: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(name)
    with radialsim.record(model, out) as recording:
        for prompt in prompts:
            model.generate(**tokenizer(prompt, return_tensors="pt"), assistant_early_exit=layers, do_sample=False, max_new_tokens=64)
    for request in recording.requests:
        drafted = sum(len(run.routes) for run in request.runs if run.role == "draft")
        rounds = [run for run in request.runs if run.role == "verify"]
        print(f"request {request.id}: {request.output_tokens} tokens in {len(rounds)} rounds, {drafted} tokens drafted")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])
