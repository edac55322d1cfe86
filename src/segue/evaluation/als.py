"""ALS: matrix factorisation as a baseline, from the package `implicit`, an extra."""

from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from segue.data.histories import Histories
from segue.errors import RequestError
from segue.evaluation.baselines import user_items

# The best of a grid on the validation part of ml-100k, which docs/evaluation.md describes.
FACTORS = 64
REGULARIZATION = 10.0
CONFIDENCE = 1.0
ITERATIONS = 15

INSTALL = "pip install 'segue[als]'"


def has_als() -> bool:
    """Whether the extra is installed."""
    return find_spec("implicit") is not None


class ALS:
    """Scores as `user . item` of factors that alternating least squares found.

    The weighted factorisation of the binary matrix of training users and items: what a user has
    counts `confidence` times as much as what they lack. Only the items' factors are kept. A user's
    own are solved for from the history at hand, so that a history which has grown since training
    is used whole, and a user who was never trained on is scored like any other. After a history
    without items every score is 0, as is that of an item which was never trained on.

    Source: Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM
    2008, sections 4 and 5; solved by the conjugate gradients of Takács, Pilászy and Tikk, RecSys
    2011.
    """

    def __init__(
        self,
        train: Histories,
        *,
        factors: int = FACTORS,
        regularization: float = REGULARIZATION,
        confidence: float = CONFIDENCE,
        iterations: int = ITERATIONS,
        seed: int = 0,
    ) -> None:
        """Factorise the training histories.

        Args:
            train: What to learn from.
            factors: Of each item and user.
            regularization: The weight of the squared factors in what is minimised.
            confidence: Of what a user has; what they lack has 1.
            iterations: Each solves for the users, then for the items.
            seed: Of the first factors.

        Raises:
            RequestError: The extra is not installed, or a setting is out of range.
        """
        settings = {
            "factors": factors,
            "regularization": regularization,
            "confidence": confidence,
            "iterations": iterations,
        }
        for name, value in settings.items():
            if value <= 0:
                raise RequestError(f"{name}={value} factorises nothing; give a number above 0")
        if not has_als():
            raise RequestError(f"ALS needs the package implicit, which is missing; {INSTALL}")
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        # Each user's and each item's factors come from their own thread alone, so that the number
        # of threads changes nothing; that of BLAS would, and slows implicit down.
        with threadpool_limits(1, "blas"):
            self._solver = AlternatingLeastSquares(
                factors=factors,
                regularization=regularization,
                alpha=confidence,
                iterations=iterations,
                random_state=seed,
            )
            self._solver.fit(_csr(train, slice(0, train.num_users)), show_progress=False)

    def score(self, histories: Histories, users: slice) -> npt.NDArray[np.float32]:
        """float32[rows, num_items + 1]."""
        rows = _csr(histories, users)
        own = self._solver.recalculate_user(np.arange(rows.shape[0]), rows)
        scores: npt.NDArray[np.float32] = own @ self.item_factors.T
        return scores

    @property
    def item_factors(self) -> npt.NDArray[np.float32]:
        """float32[num_items + 1, factors]; padding has zeros."""
        factors: npt.NDArray[np.float32] = self._solver.item_factors
        return factors


def _csr(histories: Histories, users: slice) -> sp.csr_matrix:
    """`implicit` knows no sparse arrays, only matrices."""
    return sp.csr_matrix(user_items(histories, users))
