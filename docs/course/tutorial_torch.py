"""The tutorial's program in PyTorch, on digits that need no download."""

# %% imports
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torchcnn import load_dataset

torch.manual_seed(0)  # one hidden stream of random numbers for everything

# %% one image
digits = load_dataset("digits")
image, label = digits.train.images[0], digits.train.labels[0]
print("file:   ", image.shape, image.dtype, image.min(), image.max(), "label", label)

x = torch.from_numpy(image)[None].float().div(255)  # what ToTensor does: (C, H, W)
print("network:", tuple(x.shape), x.dtype, x.min().item(), x.max().item())

# %% all images
images = torch.from_numpy(digits.train.images)[:, None].float().div(255)
labels = torch.from_numpy(digits.train.labels)
print(tuple(images.shape), tuple(labels.shape))

# %% batches
loader = DataLoader(TensorDataset(images, labels), batch_size=64, shuffle=True)

sizes = [tuple(some.shape) for some, _ in loader]
print(len(sizes), "batches:", sizes[0], "...", sizes[-1])


# %% network
class SimpleCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(16 * 13 * 13, 10)

    def forward(self, x):
        x = self.pool(torch.relu(self.conv1(x)))
        x = x.view(x.size(0), -1)
        return self.fc1(x)


model = SimpleCNN()

# %% parameters
count = 0
for name, value in model.named_parameters():
    print(f"{name:12} {tuple(value.shape)!s:14} {value.numel():6}")
    count += value.numel()
print(count, "parameters")

# %% shapes
x = images[:64]
print("input   ", tuple(x.shape))
x = model.conv1(x)
print("conv1   ", tuple(x.shape))
x = torch.relu(x)
print("relu    ", tuple(x.shape))
x = model.pool(x)
print("pool    ", tuple(x.shape))
x = x.view(x.size(0), -1)
print("flatten ", tuple(x.shape))
x = model.fc1(x)
print("fc1     ", tuple(x.shape))

# %% loss
criterion = nn.CrossEntropyLoss()

loss = criterion(model(images[:64]), labels[:64])
print(f"{loss.item():.4f}")

# %% gradients
loss.backward()  # writes into .grad of every parameter

for name, value in model.named_parameters():
    assert value.grad is not None
    print(f"{name:12} {value.grad.norm():.4f}")

# %% optimizer
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)


# %% step
def train_step(images, labels):
    optimizer.zero_grad()
    loss = criterion(model(images), labels)
    loss.backward()
    optimizer.step()  # changes model in place
    return loss


# %% training
losses = []
for epoch in range(10):
    running_loss = 0.0
    for some, their in loader:
        running_loss += train_step(some, their).item()
    losses.append(running_loss)
    print(f"Epoch {epoch + 1}, Loss: {running_loss:.3f}")

# %% test
tested = torch.from_numpy(digits.test.images)[:, None].float().div(255)
with torch.no_grad():
    predicted = model(tested).argmax(dim=1)
right = (predicted == torch.from_numpy(digits.test.labels)).float().mean()
print(f"{right.item():.1%} of {len(tested)} test images")
