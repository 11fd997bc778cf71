"""Guards against known faults of escnn 1.0.11, applied once when `escnn_attn` is imported."""

from escnn_attn.compat.installation import import_escnn

import_escnn()  # before anything else imports it

import escnn.group._clebsh_gordan
import escnn.group._numerical
from escnn.nn.modules.basismanager import BlocksBasisExpansion, BlocksBasisSampler
from escnn.nn.modules.basismanager.basisexpansion_singleblock import SingleBlockBasisExpansion
from escnn.nn.modules.basismanager.basissampler_singleblock import SingleBlockBasisSampler

from escnn_attn.compat.filters import change_of_mode, kept_filter, made_by_escnn, plain_indices, tend_filters
from escnn_attn.compat.pickling import pickle_by_numbers

# escnn issue 112: the randomized solver of scikit-learn, when it is importable, returns np.matrix and kernel bases
# of O(2) and D_N crash. Without it escnn takes scipy's, which works.
escnn.group._numerical.randomized_svd = None

# where random samples of O(2) or SO(2) did not suffice at first, escnn takes more, and prints that: nothing for a user to do, in
# the output of whatever program makes a kernel. The name hides `print` in that one file
escnn.group._clebsh_gordan.print = lambda *_: None  # pyright: ignore[reportAttributeAccessIssue]

# two expansions of kernels are equal to escnn if their numbers are: `torch.export` and the transforms of `torch.func` cannot read
# these, and `modules()` would leave out the second. Here each is itself, as any other module
for _kind in (BlocksBasisExpansion, BlocksBasisSampler, SingleBlockBasisExpansion, SingleBlockBasisSampler):
    del _kind.__hash__, _kind.__eq__

pickle_by_numbers()
