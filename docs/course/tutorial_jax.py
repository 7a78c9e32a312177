"""The tutorial's program in JAX, with Flax and Optax, on digits that need no download."""

# %% imports
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxcnn import load_dataset

key = jax.random.key(0)  # a value; whoever wants random numbers is given one

# %% one image
digits = load_dataset("digits")
image, label = digits.train.images[0], digits.train.labels[0]
print("file:   ", image.shape, image.dtype, image.min(), image.max(), "label", label)

x = jnp.asarray(image, jnp.float32)[..., None] / 255  # Flax wants (H, W, C)
print("network:", x.shape, x.dtype, x.min().item(), x.max().item())

# %% all images
images = jnp.asarray(digits.train.images, jnp.float32)[..., None] / 255
labels = jnp.asarray(digits.train.labels)
print(images.shape, labels.shape)


# %% batches
def batches(key):
    order = jax.random.permutation(key, len(labels))
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        yield images[rows], labels[rows]


sizes = [some.shape for some, _ in batches(key)]
print(len(sizes), "batches:", sizes[0], "...", sizes[-1])


# %% network
class SimpleCNN(nnx.Module):
    def __init__(self, *, rngs):
        self.conv1 = nnx.Conv(1, 16, kernel_size=(3, 3), padding="VALID", rngs=rngs)
        self.fc1 = nnx.Linear(13 * 13 * 16, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.conv1(x))
        x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        return self.fc1(x)


model = SimpleCNN(rngs=nnx.Rngs(0))

# %% parameters
count = 0
for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param)):
    print(f"{'.'.join(map(str, path)):12} {value.shape!s:14} {value.size:6}")
    count += value.size
print(count, "parameters")

# %% shapes
x = images[:64]
print("input   ", x.shape)
x = model.conv1(x)
print("conv1   ", x.shape)
x = nnx.relu(x)
print("relu    ", x.shape)
x = nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))
print("pool    ", x.shape)
x = x.reshape(x.shape[0], -1)
print("flatten ", x.shape)
x = model.fc1(x)
print("fc1     ", x.shape)


# %% loss
def loss_of(model, images, labels):
    losses = optax.softmax_cross_entropy_with_integer_labels(model(images), labels)
    return losses.mean()


loss = loss_of(model, images[:64], labels[:64])
print(f"{loss:.4f}")

# %% gradients
loss, gradients = nnx.value_and_grad(loss_of)(model, images[:64], labels[:64])

for path, value in nnx.to_flat_state(gradients):
    print(f"{'.'.join(map(str, path)):12} {jnp.linalg.norm(value[...]):.4f}")


# %% optimizer
optimizer = nnx.Optimizer(model, optax.adam(0.001), wrt=nnx.Param)


# %% step
@nnx.jit
def train_step(model, optimizer, images, labels):
    loss, gradients = nnx.value_and_grad(loss_of)(model, images, labels)
    optimizer.update(model, gradients)
    return loss


# %% training
losses = []
for epoch in range(10):
    running_loss = 0.0
    for some, their in batches(jax.random.fold_in(key, epoch)):
        running_loss += train_step(model, optimizer, some, their).item()
    losses.append(running_loss)
    print(f"Epoch {epoch + 1}, Loss: {running_loss:.3f}")

# %% test
tested = jnp.asarray(digits.test.images, jnp.float32)[..., None] / 255
predicted = model(tested).argmax(axis=1)
right = (predicted == jnp.asarray(digits.test.labels)).mean()
print(f"{right.item():.1%} of {len(tested)} test images")
