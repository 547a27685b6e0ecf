"""A softmax classifier for scikit-learn: multinomial logistic regression, fitted by L-BFGS.

`python softmax_classifier.py` fits it to handwritten digits, and scikit-learn's own as well.
"""

import time
import warnings

import numpy as np
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from csoftmax import cross_entropy_value_and_grad, log_softmax, softmax

DTYPES = [np.float64, np.float32]    # the fit is computed in that of X, others in float64


class SoftmaxClassifier(ClassifierMixin, BaseEstimator):
    """Logits that are linear in the features, fitted by their cross-entropy.

    With three classes and more the optimum is that of ``LogisticRegression(C=C)``. Each of two
    classes has coefficients here, where LogisticRegression has one row of them for both.

    Parameters
    ----------
    C : float, default 1.0
        Inverse strength of the L2 penalty on coefficients; intercepts have none.
    tol : float, default 1e-4
        The fit ends when no derivative of the mean loss is larger.
    max_iter : int, default 100
        The fit ends after as many iterations, with a ConvergenceWarning.
    fit_intercept : bool, default True
        Whether logits have intercepts.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted.
    coef_ : ndarray of shape (n_classes, n_features)
        Coefficients.
    intercept_ : ndarray of shape (n_classes,)
        Intercepts, 0 without `fit_intercept`.
    n_iter_ : int
        Iterations of L-BFGS.
    """

    def __init__(self, C=1.0, *, tol=1e-4, max_iter=100, fit_intercept=True):
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
        self.fit_intercept = fit_intercept

    def fit(self, X, y, sample_weight=None):
        """Minimize the mean of the losses, weighted by `sample_weight`, and the penalty."""
        if not self.C > 0:
            raise ValueError(f"C must be positive, got {self.C}")
        X, y = validate_data(self, X, y, dtype=DTYPES)
        check_classification_targets(y)
        self.classes_, target = np.unique(y, return_inverse=True)
        samples, features = X.shape
        total = samples
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=X.dtype)
            total = sample_weight.sum()
        penalty = np.full(features, 1 / (self.C * total))
        if self.fit_intercept:    # the coefficients of a feature that is 1, without a penalty
            X = np.column_stack([X, np.ones(samples, X.dtype)])
            penalty = np.append(penalty, 0)
        shape = len(self.classes_), X.shape[1]
        logits = np.empty((samples, len(self.classes_)), X.dtype)

        def value_and_grad(parameters):
            coef = parameters.reshape(shape)
            np.matmul(X, coef.astype(X.dtype).T, out=logits)
            loss, grad = cross_entropy_value_and_grad(    # which is written where the logits are
                logits, target, sample_weight=sample_weight, out=logits
            )
            value = loss + (penalty * coef**2).sum() / 2
            return value, (grad.T @ X + penalty * coef).ravel()

        result = minimize(
            value_and_grad, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B",
            # The last two as in LogisticRegression.
            options={
                "maxiter": self.max_iter, "gtol": self.tol,
                "ftol": 64 * np.finfo(float).eps, "maxls": 50,
            },
        )  # fmt: skip
        if not result.success:
            warnings.warn(f"L-BFGS: {result.message}", ConvergenceWarning, stacklevel=2)
        coef = result.x.reshape(shape).astype(X.dtype)
        self.coef_ = coef[:, :features]
        self.intercept_ = coef[:, features] if self.fit_intercept else np.zeros(len(coef), X.dtype)
        self.n_iter_ = result.nit
        return self

    def predict(self, X):
        """The label with the largest logit: softmax keeps their order."""
        most_probable = self._logits(X).argmax(axis=1)
        return self.classes_[most_probable]

    def predict_proba(self, X):
        """Probabilities of shape (n_samples, n_classes)."""
        logits = self._logits(X)
        return softmax(logits, out=logits)

    def predict_log_proba(self, X):
        """Their logarithms, finite also of probabilities that are too small for a float."""
        logits = self._logits(X)
        return log_softmax(logits, out=logits)

    def _logits(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=DTYPES)
        return X @ self.coef_.T + self.intercept_


def seconds_per_iteration(model, X, y):
    start = time.perf_counter()
    model.fit(X, y)
    return (time.perf_counter() - start) / np.max(model.n_iter_)


if __name__ == "__main__":
    X, y = load_digits(return_X_y=True)
    X /= 16
    for dtype in (np.float32, np.float64):
        for model in (SoftmaxClassifier(), LogisticRegression()):
            # The first call of a function takes longer.
            seconds = min(seconds_per_iteration(model, X.astype(dtype), y) for _ in range(5))
            print(
                f"{np.dtype(dtype)}  {type(model).__name__:18}  {np.max(model.n_iter_)} iterations "
                f"of {seconds * 1e3:.2f} ms, accuracy {model.score(X, y):.4f}"
            )
