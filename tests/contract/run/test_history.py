from parity.contract.run.history import Epoch

EPOCH = Epoch(epoch=1, loss=278.8623, test_loss=0.12, test_accuracy=0.96051, seconds=4.04)


def test_an_epochs_line_begins_as_the_tutorials() -> None:
    assert str(EPOCH) == "Epoch 1, Loss: 278.862, test 96.05%, 4.0 s"
