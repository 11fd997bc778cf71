"""Guards against known faults of escnn 1.0.11, applied once when `escnn_attn` is imported."""

from escnn_attn.compat.installation import import_escnn

import_escnn()  # before anything else imports it

import escnn.group._numerical

from escnn_attn.compat.filters import change_of_mode, kept_filter, made_by_escnn, plain_indices, tend_filters
from escnn_attn.compat.pickling import pickle_by_numbers

# escnn issue 112: the randomized solver of scikit-learn, when it is importable, returns np.matrix and kernel bases
# of O(2) and D_N crash. Without it escnn takes scipy's, which works.
escnn.group._numerical.randomized_svd = None

pickle_by_numbers()
