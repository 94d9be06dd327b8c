"""Metrics: every quantity with its formula, its unit, its n and its interval.

quantity           formula                       unit            n       interval  function
-----------------  ----------------------------  --------------  ------  --------  -----------------
NLL                -1/M sum of ln p(token)       nats per token  images  BCa       nll
perplexity         exp(NLL)                      perplexity      images  exp       perplexity
bits per image     -sum log2 p, mean over rows   bits per image  images  BCa       bits_per_image
top-k accuracy     tokens of rank < k / M        share           images  BCa       top_k_accuracy
accuracy, recall   right / N                     share           images  Wilson    proportion
macro F1           2PR/(P + R), mean of classes  F1              images  BCa       macro_f1
class NLL          -1/N sum of ln p(true class)  nats per image  images  BCa       class_nll
calibration error  sum n_b/N*|right_b - sure_b|  share           images  basic     calibration_error
reliability        right_b = right in bin / n_b  share           in bin  Wilson    reliability
BLEU               BP exp(mean ln P_1..4)        BLEU            rows    BCa       bleu
ROUGE-1, -2, -L    2PR/(P + R), mean over rows   F1              rows    BCa       rouge
NLL ratio          our summed NLL / theirs       ratio           images  BCa       ratio_of_rows
NLL difference     1/M sum of our NLL - theirs   nats per token  images  BCa       paired_difference
accuracy gap       (only a right - only b) / N   share           images  BCa       mcnemar

p(token) is the model's probability of the token, given all tokens before it in its row. M counts
tokens of one kind, code tokens unless stated otherwise; padding is never among them. N counts
images. P and R are precision and recall, P_1..4 the precisions of n-grams; right_b and sure_b are
accuracy and mean confidence of the n_b images in bin b; BP is BLEU's penalty for being short. Each
function's docstring names the source.

n counts independent draws. The tokens of one image depend on each other, and so do its two rows, so
intervals resample images: rows with the same entry in `images`, or each row where that is None.
They hold 95 %. Wilson: his score interval (`proportion`); top-k accuracy has it, too, where every
image has only one such token. BCa: Efron's bootstrap with 2,000 resamples (`bootstrap`);
of two models the same images are drawn for both. exp: both ends of the NLL's, exponentiated. basic:
the bootstrap mirrored at the value, for a number that chance drives up.

Macro F1 is over the classes among the labels; scikit-learn adds those that are only predicted.

`measure_tokens` and `measure_classes` gather the metrics of a metrics file. Images are measured by
`codebook.psnr`, 10 log10(1 / mean squared error) in dB, and by functions such as
`image_quality.real_vs_generated_auc`.
"""
