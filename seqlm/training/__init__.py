"""Train models on a corpus, evaluate them, save them.

`seqlm train` calls these functions in this order::

    runs.train_and_evaluate      the whole command, in the order below
      data.corpus.load_corpus    read, check, split and tokenize the rows -> Corpus
      tasks.train_lm             build the model, the training rows and the validation metric
        train.train_model        resume, plan and record the run -> training.json
          trainer.MeasuringTrainer   the loop; saves best_model/ and final_model/
      measure.evaluate_lm        the best model and its baselines on test -> values
      runs.save_run              metrics.json, model cards and report.md (cards.py)

`seqlm classify` is the same with `train_classifier` and `evaluate_classifier`; finetune.py starts
from a saved model, with replay.py and forgetting.py. timing.py times steps.
"""
